// What the audit's client and workers agree on: the tasks' names and signatures.
#ifndef LICENCE_AUDIT_TASKS_H_
#define LICENCE_AUDIT_TASKS_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "audit.h"
#include "flux/error.h"
#include "flux/task.h"

namespace licence_audit {

// A file or directory that another try will not make readable.
inline constexpr flux::ErrorType kUnreadable{"audit.unreadable", {.non_retriable = true}};

inline constexpr flux::Task<std::vector<std::string>(std::string)> kList{
    "audit.list", {.timeout = absl::Minutes(1)}};
// The second argument slows the task down, in milliseconds, so that people can watch it.
inline constexpr flux::Task<ParsedFile(std::string, int)> kParse{"audit.parse",
                                                                 {.timeout = absl::Minutes(1)}};
inline constexpr flux::Task<FileFindings(ParsedFile)> kIdentify{"audit.identify",
                                                                {.timeout = absl::Minutes(1)}};
inline constexpr flux::Task<FileLicences(FileFindings)> kNormalise{"audit.normalise",
                                                                   {.timeout = absl::Minutes(1)}};
inline constexpr flux::Task<Report(std::vector<FileLicences>)> kAggregate{
    "audit.aggregate", {.timeout = absl::Minutes(1)}};

}  // namespace licence_audit

#endif  // LICENCE_AUDIT_TASKS_H_
