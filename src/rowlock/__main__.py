"""`python -m rowlock` is the `rowlock` command."""

from rowlock.cli import app

if __name__ == "__main__":
    app()
