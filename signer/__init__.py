"""signer: the facility's service: a proof of identity becomes a certificate and tokens, recorded before they leave."""
