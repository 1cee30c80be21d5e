#include "client/fluxctl/console.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

// Far above any server's payload limit; here so that "-" of an endless pipe ends.
constexpr std::size_t kInputBytesMax = std::size_t{256} << 20U;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool LocaleIsUtf8() {
  // The first that is set decides, as in the C library.
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string value = Environment(name);
    if (value.empty()) continue;
    for (const char* spelling : {"UTF-8", "UTF8", "utf-8", "utf8"}) {
      if (value.find(spelling) != std::string::npos) return true;
    }
    return false;
  }
  return false;
}

Theme ThemeOf(int fd, const Console::Options& options) {
  Theme theme;
  theme.terminal = isatty(fd) == 1;
  const std::string term = Environment("TERM");
  theme.color = theme.terminal && !options.no_color && Environment("NO_COLOR").empty() &&
                !term.empty() && term != "dumb";
  theme.unicode = !options.ascii && LocaleIsUtf8();
  if (theme.terminal) theme.columns = Console::SizeOf(fd).columns;
  return theme;
}

}  // namespace

Console::Console(const Options& options)
    : out_(ThemeOf(STDOUT_FILENO, options)),
      err_(ThemeOf(STDERR_FILENO, options)),
      can_ask_(isatty(STDIN_FILENO) == 1 && err_.terminal) {}

Console::Size Console::SizeOf(int fd) {
  winsize size{};
  if (ioctl(fd, TIOCGWINSZ, &size) != 0) return {};
  return {size.ws_col, size.ws_row};
}

void Console::Out(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) broken_ = true;
}

void Console::FlushOut() {
  if (std::fflush(stdout) != 0) broken_ = true;
}

void Console::Err(std::string_view text) {
  // There is nobody left to tell that stderr is gone.
  (void)std::fwrite(text.data(), 1, text.size(), stderr);
  (void)std::fflush(stderr);
}

void Console::Note(std::string_view text) {
  FlushOut();
  Err(absl::StrCat("fluxctl: ", Escape(text, Lines::kMany), "\n"));
}

bool Console::Confirm(std::string_view question) {
  FlushOut();
  Err(absl::StrCat(ToAbsl(question), " [y/N] "));
  std::string answer;
  for (int c = std::getchar(); c != EOF && c != '\n'; c = std::getchar()) {
    answer.push_back(static_cast<char>(c));
  }
  return !answer.empty() && (answer.front() == 'y' || answer.front() == 'Y');
}

absl::Status Console::Finish() {
  FlushOut();
  if (broken_ || std::ferror(stdout) != 0) {
    return absl::InternalError(
        absl::StrCat("cannot write to standard output: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadInput(const std::string& path) {
  const bool standard = path == "-";
  const std::string name = standard ? "standard input" : Escape(path, Lines::kOne);
  const int fd = standard ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const std::string message = absl::StrCat("cannot open ", name, ": ", std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(message) : absl::InvalidArgumentError(message);
  }
  std::string text;
  std::array<char, 64 * 1024> chunk;
  absl::Status status;
  while (true) {
    const ssize_t n = read(fd, chunk.data(), chunk.size());
    if (n == 0) break;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      status = absl::InvalidArgumentError(
          absl::StrCat("cannot read ", name, ": ", std::strerror(errno)));
      break;
    }
    text.append(chunk.data(), static_cast<std::size_t>(n));
    if (text.size() > kInputBytesMax) {
      status = absl::InvalidArgumentError(
          absl::StrCat(name, " is larger than ", BytesText(kInputBytesMax)));
      break;
    }
  }
  if (!standard) close(fd);
  if (!status.ok()) return status;
  return text;
}

}  // namespace flux::ctl
