/* The agent as a program; see its man page. Returns the exit status. */
#pragma once

int agent_main(int argc, char **argv);
