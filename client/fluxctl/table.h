// The renderers of aligned text: tables, key-value blocks and trees. They know text and themes, no
// protos.
#ifndef FLUX_CLIENT_FLUXCTL_TABLE_H_
#define FLUX_CLIENT_FLUXCTL_TABLE_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "client/fluxctl/text.h"

namespace flux::ctl {

struct Cell {
  // Text is taken as hostile: it is escaped to one line on construction.
  Cell(std::string_view text_in,
       Style style_in = Style::kPlain)  // NOLINT: cells are written as text
      : text(Escape(text_in, Lines::kOne)), style(style_in) {}
  Cell(const char* text_in, Style style_in = Style::kPlain)
      : Cell(std::string_view(text_in), style_in) {}
  Cell(const std::string& text_in, Style style_in = Style::kPlain)
      : Cell(std::string_view(text_in), style_in) {}

  std::string text;
  Style style;
  std::string indent;  // drawn before the text, dimmed: the lines of a tree
};

struct Column {
  std::string header;
  bool right = false;   // numbers
  bool shrink = false;  // may be cut when the terminal is narrow
};

// Rows of cells under upper-case headers, two spaces apart, no trailing blanks. A value object.
struct Table {
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;
  // Least width of each column (may be shorter than `columns`): lets pages of one listing line up.
  // Render() leaves the widths it used here.
  std::vector<std::size_t> widths;
  bool headers = true;
};

// Cells missing at the end of a row are empty; an empty cell is shown as "-" except in the last
// column, a cell of one blank as nothing. A table wider than theme.columns has its shrink columns
// cut, widest first, never below eight columns.
std::string Render(const Theme& theme, Table& table);

// "  Key:    value" lines, keys aligned. Pairs with an empty value are left out.
using Block = std::vector<std::pair<std::string, Cell>>;
std::string Render(const Theme& theme, const Block& block);

// The lines in front of a node of a tree. `last` has an entry a level, outermost first: whether the
// ancestor (or the node itself, at the end) is the last of its siblings.
std::string TreeIndent(const std::vector<bool>& last, bool unicode);

// [████▌░░░] `columns` wide in unicode, [####....] in ASCII; fraction is clamped to 0..1.
std::string Bar(double fraction, std::size_t columns, bool unicode);

}  // namespace flux::ctl

#endif  // FLUX_CLIENT_FLUXCTL_TABLE_H_
