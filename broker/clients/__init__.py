"""One connected client: connection, session, log and permission meet here and nowhere else."""
