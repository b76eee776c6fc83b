"""photometryctl: the operator's tool. Each command family is one module, imported only when it is used."""
