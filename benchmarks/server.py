"""The server of a target: `python -m benchmarks.server grouped`, as many processes as `rowlock serve` would run."""

from __future__ import annotations

import contextlib
import sys

from rowlock.cli.serve import listen, serve_on
from rowlock.cli.setting_up import one_clear_line
from rowlock.kernel.settings import read_settings


@one_clear_line
def main(application: str) -> None:
    """Serve one of `benchmarks.targets`; the first line on standard output ends with the address."""
    settings = read_settings(port=0)
    with contextlib.closing(listen(settings)) as listener:
        sys.stdout.write(f"{application} http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        serve_on(listener, f"benchmarks.targets:{application}", workers=settings.workers)


if __name__ == "__main__":
    main(sys.argv[1])
