#include "audit.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace licence_audit {
namespace {

std::string LowerName(std::string name) {
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ListFiles(const std::string& root) {
  std::error_code error;
  std::filesystem::directory_iterator entries(root, error);
  if (error) {
    return absl::NotFoundError(absl::StrCat("cannot list ", root, ": ", error.message()));
  }
  std::vector<std::string> files;
  for (; entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    const std::filesystem::path path = entries->path() / "copyright";
    std::error_code missing;
    if (std::filesystem::is_regular_file(path, missing)) files.push_back(path.string());
    if (error)
      return absl::NotFoundError(absl::StrCat("cannot list ", root, ": ", error.message()));
  }
  if (files.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "no ", root, "/*/copyright: give a directory laid out like /usr/share/doc of a Debian"));
  }
  std::sort(files.begin(), files.end());
  return files;
}

absl::StatusOr<ParsedFile> ReadAndParse(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in)
    return absl::NotFoundError(absl::StrCat("cannot read ", path, ": ", std::strerror(errno)));
  std::string bytes(kFileBytesMax + 1, '\0');
  in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<std::size_t>(in.gcount()));
  if (bytes.size() > kFileBytesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, " has more than ", kFileBytesMax, " bytes; no copyright file has"));
  }
  CopyrightFile parsed = ParseCopyright(bytes);
  return ParsedFile{path, parsed.machine_readable, std::move(parsed.statements)};
}

FileFindings Identify(const ParsedFile& file) {
  FileFindings findings{file.path, file.machine_readable, {}};
  for (const LicenceStatement& statement : file.statements) {
    findings.findings.push_back({statement.name, RecogniseLicences(statement.text)});
  }
  return findings;
}

FileLicences Normalise(const FileFindings& file) {
  LocalNames local;
  for (const Finding& finding : file.findings) {
    if (finding.name.empty() || finding.recognised.empty()) continue;
    local[LowerName(finding.name)] = AllOf(finding.recognised);
  }
  std::set<std::string> licences;
  for (const Finding& finding : file.findings) {
    if (finding.name.empty()) {
      licences.insert(finding.recognised.begin(), finding.recognised.end());
    } else {
      licences.insert(NormaliseExpression(finding.name, local));
    }
  }
  licences.erase("");
  return {file.path, file.machine_readable, {licences.begin(), licences.end()}};
}

Report Aggregate(const std::vector<FileLicences>& files) {
  Report report;
  std::map<std::string, int> counts;
  for (const FileLicences& file : files) {
    ++report.files_read;
    if (file.machine_readable) ++report.files_machine_readable;
    for (const std::string& licence : file.licences) ++counts[licence];
    if (std::none_of(file.licences.begin(), file.licences.end(),
                     [](const std::string& licence) { return IsIdentified(licence); })) {
      report.files_unidentified.push_back(file.path);
    }
  }
  for (const auto& [licence, count] : counts) report.files_by_licence.push_back({licence, count});
  std::stable_sort(report.files_by_licence.begin(), report.files_by_licence.end(),
                   [](const LicenceCount& a, const LicenceCount& b) { return a.files > b.files; });
  std::sort(report.files_unidentified.begin(), report.files_unidentified.end());
  return report;
}

std::string ReportJson(const Report& report) {
  nlohmann::ordered_json json;
  json["files_read"] = report.files_read;
  json["files_machine_readable"] = report.files_machine_readable;
  auto& by_licence = json["files_by_licence"] = nlohmann::ordered_json::object();
  for (const LicenceCount& count : report.files_by_licence) by_licence[count.licence] = count.files;
  json["files_unidentified"] = report.files_unidentified;
  // A path need not be UTF-8; the report is.
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string ReportTable(const Report& report, int rows) {
  std::string out = absl::StrFormat("%-58s %6s\n", "LICENCE", "FILES");
  int shown = 0;
  for (const LicenceCount& count : report.files_by_licence) {
    if (shown++ == rows) break;
    absl::StrAppendFormat(&out, "%-58.58s %6d\n", count.licence, count.files);
  }
  const int more = static_cast<int>(report.files_by_licence.size()) - rows;
  if (more > 0) absl::StrAppendFormat(&out, "… and %d more licences and expressions\n", more);
  absl::StrAppendFormat(&out, "%d files read, %d of them machine-readable; %d unidentified\n",
                        report.files_read, report.files_machine_readable,
                        report.files_unidentified.size());
  return out;
}

absl::Status WriteFile(const std::string& path, std::string_view content) {
  const std::string temporary = path + ".part";
  {
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    out.write(content.data(), static_cast<std::streamsize>(content.size()));
    out.flush();
    if (!out) {
      return absl::UnavailableError(
          absl::StrCat("cannot write ", temporary, ": ", std::strerror(errno)));
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace licence_audit
