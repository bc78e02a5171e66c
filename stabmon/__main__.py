"""``python -m stabmon`` is the ``stabmon`` command."""

from stabmon.cli import main

if __name__ == "__main__":
    main()
