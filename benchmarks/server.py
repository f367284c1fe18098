"""One server process of a target: `python -m benchmarks.server grouped`, served exactly as `rowlock serve` does."""

from __future__ import annotations

import contextlib
import sys

import uvicorn

from rowlock.cli.serve import listen, uvicorn_config
from rowlock.cli.setting_up import one_clear_line
from rowlock.kernel.settings import read_settings


@one_clear_line
def main(application: str) -> None:
    """Serve one of `benchmarks.targets`; the first line on standard output ends with the address."""
    with contextlib.closing(listen(read_settings(port=0))) as listener:
        sys.stdout.write(f"{application} http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        uvicorn.Server(uvicorn_config(f"benchmarks.targets:{application}")).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1])
