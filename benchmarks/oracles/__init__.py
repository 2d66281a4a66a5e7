"""The papers' equations as plain loops: tests compare with them, `make speed` measures them."""
