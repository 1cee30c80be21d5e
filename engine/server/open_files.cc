#include "engine/server/open_files.h"

#include <sys/resource.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/server/worker_service.h"
#include "store/rocks_store.h"

namespace flux::server {
namespace {

constexpr uint64_t kOtherFiles = 256;  // clients' connections, gRPC's own, logs, locks

}  // namespace

uint64_t OpenFilesWanted() {
  return WorkerServiceOptions().streams_max + store::kDatabaseFilesMax + kOtherFiles;
}

std::string RaiseOpenFilesLimit(uint64_t wanted) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return absl::StrCat("the limit on open files cannot be read: ", std::strerror(errno));
  }
  std::string failure;
  if (limit.rlim_cur < limit.rlim_max) {
    rlimit raised = limit;
    raised.rlim_cur = limit.rlim_max;
    if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) {
      limit = raised;
    } else {
      failure = absl::StrCat(" and could not be raised (", std::strerror(errno), ")");
    }
  }
  if (limit.rlim_cur >= wanted) return "";
  return absl::StrCat(
      "the limit on open files is ", limit.rlim_cur, failure, ", but ", wanted,
      " may be needed: ", WorkerServiceOptions().streams_max, " workers, ",
      store::kDatabaseFilesMax, " files of the database, ", kOtherFiles,
      " others. With more connections than fit, nobody can connect any more, and fluxd ends when "
      "the store needs its next file. Raise the hard limit (LimitNOFILE= of a systemd unit, "
      "--ulimit nofile= of a container, `ulimit -Hn`), or connect fewer workers");
}

}  // namespace flux::server
