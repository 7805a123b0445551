"""The tests of the encrypted file, each opposite the module that it tries."""
