/* The agent, and the operator's tool for the node's storage, as programs; see their man pages. They return the exit status. */
#pragma once

int agent_main(int argc, char **argv);
int volume_main(int argc, char **argv);
