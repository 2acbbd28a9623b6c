"""Small faults put into the code one after the other: whether the tests that execute such a line notice it."""
