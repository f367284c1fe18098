"""Events: what people come to, when it can be seen, and what its tickets are."""
