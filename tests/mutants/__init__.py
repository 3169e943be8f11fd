"""Mutation testing: `make mutants` changes the core in small ways and looks whether tests notice.

Cosmic Ray has the operators for Python; those for the Lua and the SQL in strings are here. The
sample is drawn with a fixed seed, a few mutations of each module, and each runs the tests of its
package only, in a copy of the tree. It is not part of continuous integration.
"""
