"""Orders and their tickets. A registration is an order of exactly one free ticket, made in one step."""
