"""What every feature stands on. Knows no event, no seat and no HTTP."""
