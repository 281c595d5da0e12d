// Properties of characters as Rust's standard library and regex crate have them, which Hugging Face
// asks; utf8proc answers, and what is newer than its Unicode 15 stands here. Pure functions.
#pragma once

#include <string>

namespace gatehouse {

bool IsSpace(char32_t code_point);  // the property White_Space
bool IsWord(char32_t code_point);   // \w: Alphabetic, M, Nd, Pc, Join_Control
void AppendLowercase(char32_t code_point, std::string* text);  // without context: no final sigma

}  // namespace gatehouse
