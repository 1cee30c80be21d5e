// Where the picture of something under way goes: a block drawn over itself on a terminal, lines
// elsewhere.
#ifndef FLUX_CLIENT_FLUXCTL_CANVAS_H_
#define FLUX_CLIENT_FLUXCTL_CANVAS_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "client/fluxctl/commands.h"
#include "client/fluxctl/live.h"
#include "client/fluxctl/text.h"

namespace flux::ctl {

// Lives as long as the picture; the context outlives it. Not thread-safe.
class Canvas {
 public:
  Canvas(Context& context, WatchTo to);

  // Is it drawn over itself? Not without cursor movement: TERM=dumb has plain lines.
  bool live() const { return screen_ != nullptr; }
  // Only if it is live. What the next Draw() may use, as the terminal is now; the last column stays
  // free, since writing into it makes some terminals wrap.
  const Theme& Measure();
  std::size_t rows() const { return rows_; }
  void Draw(const std::vector<std::string>& lines);

  void Line(std::string_view text);
  // A note on stderr, above the picture.
  void Note(std::string_view text);
  // Leaves the picture as it stands.
  void Close();

 private:
  void Write(const std::string& text);

  Context& context_;
  const int fd_;
  Theme theme_;
  std::size_t rows_ = 0;
  std::unique_ptr<Screen> screen_;
};

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_CANVAS_H_
