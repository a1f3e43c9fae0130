"""`python -m actors.page`."""

from actors.page.app import main

if __name__ == "__main__":
    main()
