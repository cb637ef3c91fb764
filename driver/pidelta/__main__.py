"""``python -m pidelta`` is the command ``pidelta``."""

from pidelta.cli.main import main

if __name__ == "__main__":
    main()
