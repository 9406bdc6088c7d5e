"""The nouns: files, groups, jobs, publications, decisions and their states. No input, no output, no clock."""
