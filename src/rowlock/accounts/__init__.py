"""People, organizations, and what each may do."""
