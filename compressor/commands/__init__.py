"""The commands of the command line: each calls one function of a stage and prints."""
