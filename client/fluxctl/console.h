// The three streams of the process: data goes to stdout, notes to stderr, questions to a person if
// there is one.
#ifndef FLUX_CLIENT_FLUXCTL_CONSOLE_H_
#define FLUX_CLIENT_FLUXCTL_CONSOLE_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/fluxctl/text.h"

namespace flux::ctl {

enum class Output { kTable, kJson, kJsonLines };

// Knows what each stream can show. One a process; used by one thread. Writes are buffered by stdio
// for stdout and immediate for stderr.
class Console {
 public:
  struct Options {
    bool no_color = false;
    bool ascii = false;
  };
  // Looks at the streams and at NO_COLOR, TERM, LC_ALL, LC_CTYPE and LANG.
  explicit Console(const Options& options);

  const Theme& out_theme() const { return out_; }
  const Theme& err_theme() const { return err_; }
  bool out_terminal() const { return out_.terminal; }
  bool err_terminal() const { return err_.terminal; }
  // Whether there is somebody to ask: stdin and stderr are both terminals.
  bool can_ask() const { return can_ask_; }

  void Out(std::string_view text);
  // Makes what Out() took visible now.
  void FlushOut();
  void Err(std::string_view text);
  // One "fluxctl: …" line on stderr; control characters are escaped.
  void Note(std::string_view text);
  // Asks on stderr; true if the answer begins with y or Y. Blocks until the line is there; end of
  // file means no.
  bool Confirm(std::string_view question);

  // The terminal's size now (a resize changes it); {0, 0} where there is none.
  struct Size {
    std::size_t columns = 0;
    std::size_t rows = 0;
  };
  static Size SizeOf(int fd);

  // Writes what is buffered. Internal if stdout could not take it all (a full disk, a closed pipe).
  absl::Status Finish();

 private:
  Theme out_;
  Theme err_;
  bool can_ask_ = false;
  bool broken_ = false;
};

// All of a file, or of stdin where `path` is "-". NotFound, InvalidArgument (too large, a
// directory), Internal.
absl::StatusOr<std::string> ReadInput(const std::string& path);

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_CONSOLE_H_
