"""What every face over HTTP needs. Knows HTTP, and no event."""
