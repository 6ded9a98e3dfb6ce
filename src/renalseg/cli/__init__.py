"""The command line: names and flags for the functions of the package. Heavy imports stay inside the bodies.

Exit codes: 0 done, 1 some cases failed and the others are written, 2 unusable arguments or input, 130 interrupted.
"""

import os
import signal
import sys
from typing import Annotated

import typer

from renalseg.cli import (  # noqa: F401  (each registers its commands)
    augment_preview,
    benchmark,
    crossval,
    imaging,
    inspect,
    measure,
    report,
    training,
)
from renalseg.cli.common import app


def main() -> None:
    """Runs the command line; errors that a user can act on become one sentence and an exit code."""
    from renalseg.core.errors import RenalsegError

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an interrupt: temporary files are removed
    try:
        app()
    except RenalsegError as error:
        print(f"renalseg: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as stop:  # typer turns an interrupt into exit code 130
        code = 130 if isinstance(stop, KeyboardInterrupt) else stop.code
        if code == 130:
            print("renalseg: interrupted", file=sys.stderr)
        sys.exit(code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        print(f"renalseg: {error.filename or 'a file'}: {error.strerror or error}; check the path.", file=sys.stderr)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from renalseg import __version__

        print(__version__)
        raise typer.Exit
