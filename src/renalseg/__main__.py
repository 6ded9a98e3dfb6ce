"""``python -m renalseg``."""

from renalseg.cli import main

if __name__ == "__main__":
    main()
