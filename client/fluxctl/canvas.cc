#include "client/fluxctl/canvas.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "proto/bridge.h"

namespace flux::ctl {
namespace {

constexpr std::size_t kRowsDefault = 24;
constexpr std::size_t kColumnsDefault = 80;

std::size_t AllButOne(std::size_t count, std::size_t otherwise) {
  return std::max<std::size_t>(count == 0 ? otherwise : count, 2) - 1;
}

}  // namespace

Canvas::Canvas(Context& context, WatchTo to)
    : context_(context),
      fd_(to == WatchTo::kErr ? STDERR_FILENO : STDOUT_FILENO),
      theme_(to == WatchTo::kErr ? context.console.err_theme() : context.console.out_theme()) {
  const char* term = std::getenv("TERM");
  const bool moves = term != nullptr && *term != '\0' && std::string_view(term) != "dumb";
  if ((to == WatchTo::kErr || to == WatchTo::kOut) && theme_.terminal && moves) {
    screen_ = std::make_unique<Screen>([this](const std::string& text) { Write(text); });
  }
}

const Theme& Canvas::Measure() {
  const Console::Size size = Console::SizeOf(fd_);
  theme_.columns = AllButOne(size.columns, kColumnsDefault);
  rows_ = AllButOne(size.rows, kRowsDefault);
  return theme_;
}

void Canvas::Draw(const std::vector<std::string>& lines) {
  if (live()) screen_->Draw(lines, theme_.columns + 1);
}

void Canvas::Line(std::string_view text) { Write(absl::StrCat(ToAbsl(text), "\n")); }

void Canvas::Note(std::string_view text) {
  if (live()) screen_->Erase();
  context_.console.Note(text);
}

void Canvas::Close() {
  if (live()) screen_->Release();
}

void Canvas::Write(const std::string& text) {
  if (fd_ == STDERR_FILENO) {
    context_.console.Err(text);
  } else {
    context_.console.Out(text);
    context_.console.FlushOut();
  }
}

}  // namespace flux::ctl
