"""`python -m mvtool`."""

from mvtool.cli import main

if __name__ == "__main__":
    main()
