"""Registry linkage and the warehouse: reading extracts, joins, the ledger, exports."""
