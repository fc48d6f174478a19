"""What all stages share; it imports no other folder."""
