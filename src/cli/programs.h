/* The programs inside `flocker`; each gets its own argv (argv[0] = its name) and returns the exit
 * status. */
#pragma once

int ca_main(int argc, char **argv);
int deploy_main(int argc, char **argv);
int flockerctl_main(int argc, char **argv);
int node_era_main(int argc, char **argv);
