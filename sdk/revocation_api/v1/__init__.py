"""Version 1 of the contract, protobuf package revocation.v1."""
