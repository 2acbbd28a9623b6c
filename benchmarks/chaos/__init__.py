"""What becomes of runs when processes are killed, servers hang and disks are full: `make chaos` tries it."""
