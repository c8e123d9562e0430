"""Tables as contracts: columns, types, units, codes and checks."""
