// fluxctl: the command line of Flux. Everything is in app.h.
#include "client/fluxctl/app.h"

int main(int argc, char** argv) {
  flux::ctl::CommandTree tree;
  return tree.Run(argc, argv);
}
