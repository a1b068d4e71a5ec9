"""Where things are kept: the home and its lock, the lake, the warehouse, the ledgers, the inventory of stores."""
