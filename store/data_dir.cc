#include "store/data_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

#include <bit>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "proto/bridge.h"
#include "store/checks.h"
#include "store/failpoint.h"

namespace flux::store {
namespace {

constexpr char kMagicLine[] = "flux data directory";
constexpr size_t kFormatBytesMax = 4096;
constexpr size_t kPidBytesMax = 32;

std::string FormatChecksum(absl::string_view text) {
  return absl::StrCat(absl::Hex(XXH3_64bits(text.data(), text.size()), absl::kZeroPad16));
}

// Where the error alone does not say what to do, another directory is the way out.
absl::Status ChooseAnother(const absl::Status& status) {
  if (!absl::IsNotFound(status) && !absl::IsFailedPrecondition(status) &&
      !absl::IsInvalidArgument(status)) {
    return status;
  }
  return {status.code(), absl::StrCat(status.message(), "; choose another directory")};
}

// Of the directory itself.
absl::Status CannotUse(const std::error_code& error, std::string_view what,
                       const std::string& path) {
  return ChooseAnother(
      ErrnoStatus(error.value(), absl::StrCat(ToAbsl(what), " data directory ", path)));
}

// Creates the directory and its parents, each durable in the one above it.
absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::path existing = std::filesystem::absolute(path, error);
  if (error) return CannotUse(error, "resolve", path);
  existing = existing.lexically_normal();
  if (!existing.has_filename()) existing = existing.parent_path();
  std::vector<std::filesystem::path> missing;
  while (!std::filesystem::exists(existing, error)) {
    if (error) return CannotUse(error, "create", path);
    missing.push_back(existing);
    existing = existing.parent_path();
  }
  if (error) return CannotUse(error, "create", path);
  for (auto directory = missing.rbegin(); directory != missing.rend(); ++directory) {
    std::filesystem::create_directory(*directory, error);
    if (error) return CannotUse(error, "create", path);
    FLUX_RETURN_IF_ERROR(SyncDirectory(directory->parent_path().string()));
  }
  return absl::OkStatus();
}

// Whether nothing is in the directory but what an interrupted creation of ours leaves.
absl::StatusOr<bool> IsEmpty(const std::string& path) {
  std::error_code error;
  for (std::filesystem::directory_iterator entry(path, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name != "LOCK" && name != "FORMAT.tmp" && name != "lost+found") return false;
  }
  if (error) return CannotUse(error, "list", path);
  return true;
}

// It is written before anything else, so that a directory that cannot be is told here.
absl::StatusOr<FileDescriptor> Lock(const std::string& directory) {
  const std::string path = directory + "/LOCK";
  absl::StatusOr<FileDescriptor> opened = OpenFile(path, O_RDWR | O_CREAT);
  if (!opened.ok()) {
    const absl::Status why = ChooseAnother(opened.status());
    return absl::Status(why.code(), absl::StrCat("data directory ", directory,
                                                 " cannot be written: ", why.message()));
  }
  FileDescriptor file = *std::move(opened);
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock " + path);
    absl::StatusOr<std::string> pid = ReadAt(file.get(), 0, kPidBytesMax, path);
    const std::string owner(absl::StripAsciiWhitespace(pid.ok() ? *pid : ""));
    return absl::FailedPreconditionError(absl::StrCat(
        "data directory ", directory, " is in use: another fluxd (pid ",
        owner.empty() ? "unknown" : owner, ") has it open; stop it or use another directory"));
  }
  if (::ftruncate(file.get(), 0) != 0) return ErrnoStatus(errno, "write " + path);
  FLUX_RETURN_IF_ERROR(WriteAt(file.get(), absl::StrCat(::getpid(), "\n"), 0, path));
  return file;
}

absl::StatusOr<bool> FormatExists(const std::string& path) {
  std::error_code error;
  const bool exists = std::filesystem::exists(path + "/FORMAT", error);
  if (error) return CannotUse(error, "look at", path);
  return exists;
}

}  // namespace

std::string EncodeDataFormat(const DataFormat& format) {
  std::string text =
      absl::StrCat(kMagicLine, "\nformat: ", format.version, "\nshards: ", format.shards,
                   "\nincarnation: ", format.incarnation, "\ncreated: ", format.created, "\n");
  absl::StrAppend(&text, "checksum: ", FormatChecksum(text), "\n");
  return text;
}

absl::StatusOr<DataFormat> DecodeDataFormat(std::string_view bytes, const std::string& path) {
  absl::string_view text = ToAbsl(bytes);
  const auto damaged = [&](absl::string_view why) {
    return absl::DataLossError(
        absl::StrCat(path, " is damaged: ", why, "; restore the directory from a backup"));
  };
  if (!absl::StartsWith(text, kMagicLine)) return damaged("it does not begin as it should");
  DataFormat format;
  format.version = 0;
  std::string checksum;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    std::pair<absl::string_view, absl::string_view> field =
        absl::StrSplit(line, absl::MaxSplits(": ", 1));
    bool good = true;
    if (field.first == "format") good = absl::SimpleAtoi(field.second, &format.version);
    if (field.first == "shards") good = absl::SimpleAtoi(field.second, &format.shards);
    if (field.first == "incarnation") good = absl::SimpleAtoi(field.second, &format.incarnation);
    if (field.first == "created") format.created = std::string(field.second);
    if (field.first == "checksum") checksum = std::string(field.second);
    if (!good) return damaged(absl::StrCat("'", line, "' has no number"));
  }
  // A newer format may have another checksum: its version is looked at first.
  if (format.version > kDataFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, " says format ", format.version,
        ", which a newer program wrote; this one reads up to ", kDataFormatVersion, ": upgrade"));
  }
  if (checksum != FormatChecksum(text.substr(0, text.find("checksum: ")))) {
    return damaged("its checksum does not match");
  }
  if (format.version == 0 || format.incarnation == 0 || !std::has_single_bit(format.shards) ||
      format.shards > kShardsMax) {
    return damaged("a figure is out of range");
  }
  return format;
}

absl::StatusOr<DataDir> DataDir::Open(const std::string& path, uint32_t shards_at_creation,
                                      bool create) {
  if (path.empty()) return absl::InvalidArgumentError("no data directory was given");
  std::error_code error;
  const std::filesystem::file_status found = std::filesystem::status(path, error);
  if (found.type() == std::filesystem::file_type::none) {
    return CannotUse(error, "look at", path);
  }
  if (found.type() == std::filesystem::file_type::not_found) {
    if (!create) {
      return absl::NotFoundError(absl::StrCat("data directory ", path, " does not exist"));
    }
    FLUX_RETURN_IF_ERROR(MakeDirectories(path));
  } else if (found.type() != std::filesystem::file_type::directory) {
    return absl::FailedPreconditionError(
        absl::StrCat("data directory ", path, " is not a directory; choose another path"));
  }
  // Looked at before anything is written: a foreign directory is left as it was.
  FLUX_ASSIGN_OR_RETURN(bool initialized, FormatExists(path));
  if (!initialized) {
    FLUX_ASSIGN_OR_RETURN(bool empty, IsEmpty(path));
    if (!empty) {
      return absl::FailedPreconditionError(
          absl::StrCat(path, " is not a Flux data directory: it is not empty and has no FORMAT ",
                       "file; choose an empty or a new directory"));
    }
    if (!create) {
      return absl::NotFoundError(absl::StrCat("data directory ", path, " is empty"));
    }
  }

  DataDir directory;
  directory.path_ = path;
  FLUX_ASSIGN_OR_RETURN(directory.lock_, Lock(path));
  const std::string format_path = path + "/FORMAT";
  FLUX_ASSIGN_OR_RETURN(initialized, FormatExists(path));
  if (!initialized) {
    if (!std::has_single_bit(shards_at_creation) || shards_at_creation > kShardsMax) {
      return absl::InvalidArgumentError(absl::StrCat(
          "shards is ", shards_at_creation, "; it must be a power of two up to ", kShardsMax));
    }
    DataFormat format;
    format.shards = shards_at_creation;
    format.created = absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone());
    if (Failpoint::Hit("create_before_format")) {
      return absl::UnavailableError("injected fault: create_before_format");
    }
    FLUX_RETURN_IF_ERROR(ReplaceFile(format_path, EncodeDataFormat(format)));
    if (Failpoint::Hit("create_after_format")) {
      return absl::UnavailableError("injected fault: create_after_format");
    }
  }
  FLUX_ASSIGN_OR_RETURN(std::string text, ReadFile(format_path, kFormatBytesMax));
  FLUX_ASSIGN_OR_RETURN(directory.format_, DecodeDataFormat(text, format_path));
  return directory;
}

absl::Status DataDir::RaiseFormat() {
  if (format_.version == kDataFormatVersion) return absl::OkStatus();
  if (Failpoint::Hit("format_raise")) {
    return absl::UnavailableError("injected fault: format_raise");
  }
  format_.version = kDataFormatVersion;
  return ReplaceFile(path_ + "/FORMAT", EncodeDataFormat(format_));
}

}  // namespace flux::store
