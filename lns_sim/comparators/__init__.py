"""The systems that LNS-Madam is compared with: their quantizers, optimizers and layers, one file each (docs/comparators.md)."""
