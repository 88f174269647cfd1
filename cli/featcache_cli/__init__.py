"""The command line: parse, call one function of featcache, render. No logic."""
