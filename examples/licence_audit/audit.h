// The licence audit: its data, and its steps as plain functions. The workers run them as Flux
// tasks, audit_plain runs them in a loop; both must write the same report.
#ifndef LICENCE_AUDIT_AUDIT_H_
#define LICENCE_AUDIT_AUDIT_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "flux/struct.h"
#include "licences.h"

namespace licence_audit {

FLUX_STRUCT(LicenceStatement, name, text)

// A file as read: what it says about licences, nothing else of it.
struct ParsedFile {
  std::string path;
  bool machine_readable = false;
  std::vector<LicenceStatement> statements;
};
FLUX_STRUCT(ParsedFile, path, machine_readable, statements)

// One statement with the licences its text is recognised as.
struct Finding {
  std::string name;                     // as the file has it; empty in free text
  std::vector<std::string> recognised;  // SPDX identifiers
};
FLUX_STRUCT(Finding, name, recognised)

struct FileFindings {
  std::string path;
  bool machine_readable = false;
  std::vector<Finding> findings;
};
FLUX_STRUCT(FileFindings, path, machine_readable, findings)

// SPDX expressions, sorted, each once.
struct FileLicences {
  std::string path;
  bool machine_readable = false;
  std::vector<std::string> licences;
};
FLUX_STRUCT(FileLicences, path, machine_readable, licences)

struct LicenceCount {
  std::string licence;
  int files = 0;
};
FLUX_STRUCT(LicenceCount, licence, files)

struct Report {
  int files_read = 0;
  int files_machine_readable = 0;
  std::vector<LicenceCount> files_by_licence;   // most files first, then by name
  std::vector<std::string> files_unidentified;  // sorted
};
FLUX_STRUCT(Report, files_read, files_machine_readable, files_by_licence, files_unidentified)

// Largest file that is read; the largest of Debian 12 has 2 MB.
inline constexpr std::size_t kFileBytesMax = 16 * 1024 * 1024;

// Every <root>/*/copyright, sorted. NotFound: no such directory. InvalidArgument: nothing there to
// audit.
absl::StatusOr<std::vector<std::string>> ListFiles(const std::string& root);

// NotFound: the file went away or cannot be read. ResourceExhausted: over kFileBytesMax.
absl::StatusOr<ParsedFile> ReadAndParse(const std::string& path);

FileFindings Identify(const ParsedFile& file);
FileLicences Normalise(const FileFindings& file);
Report Aggregate(const std::vector<FileLicences>& files);

// The report as JSON, indented, with a final newline; equal reports give equal bytes.
std::string ReportJson(const Report& report);

// The report for people: the figures and the `rows` commonest licences.
std::string ReportTable(const Report& report, int rows);

// Writes a file as a whole or not at all. Unavailable: names the path and the reason.
absl::Status WriteFile(const std::string& path, std::string_view content);

}  // namespace licence_audit

#endif  // LICENCE_AUDIT_AUDIT_H_
