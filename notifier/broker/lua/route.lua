#!lua
-- The router's step. Without flags the server refuses the whole script at its memory limit.

-- include route
