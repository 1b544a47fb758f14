"""The user's side: credential files, logging in, and talking to signers and services over mutual TLS."""
