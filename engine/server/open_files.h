// How many files and connections this process may have open.
#ifndef FLUX_ENGINE_SERVER_OPEN_FILES_H_
#define FLUX_ENGINE_SERVER_OPEN_FILES_H_

#include <cstdint>
#include <string>

namespace flux::server {

// What fluxd may have open with all its limits reached: workers' streams, each with a connection of
// its own, the database's files, and something for clients and itself.
uint64_t OpenFilesWanted();

// Raises the process's soft limit on open files to its hard one (getrlimit(2)). The soft one is
// kept low for programs that use select(2); a store that cannot open its next log is the end of
// this one. Returns what to tell the operator; empty: the limit is at least `wanted`.
std::string RaiseOpenFilesLimit(uint64_t wanted);

}  // namespace flux::server

#endif  // FLUX_ENGINE_SERVER_OPEN_FILES_H_
