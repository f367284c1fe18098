"""The one door for capacity: every change of how many seats are left is decided here, under the pools' row locks."""
