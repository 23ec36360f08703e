"""How much of the service one realm may use, so that others keep their share (I6). Pure."""
