namespace lutra {}
