# Keys of the tests alone: everybody has them who has this repository.
{
  one = {
    secret = "test-only-one:Y1S/Zjx1u+QCK7/zjMOMoc64tOxSbat6tzvfDSrPG0gdfkahHIul6Ql6Z4OUuqraN6S/Lj8FQWRqw7EeteNhQg==";
    public = "test-only-one:HX5GoRyLpekJemeDlLqq2jekvy4/BUFkasOxHrXjYUI=";
  };
  two = {
    secret = "test-only-two:fJiY1cB7/JQH+Id1icHWT9EqBs+zKEuyn5Fu9itz0JY5jzgzjClIDMJaYyea/jMzsI3k2oD1lxS7eh5m1iJqDg==";
    public = "test-only-two:OY84M4wpSAzCWmMnmv4zM7CN5NqA9ZcUu3oeZtYiag4=";
  };
  three = {
    secret = "test-only-three:yZTuAQr8klHC6XzS/JpTjd20rqt/rm4+D4aOGUaEpHwIE38V3AXMMMrH0WROeGSJPxiDkfJlkFUd07zm+y0UFw==";
    public = "test-only-three:CBN/FdwFzDDKx9FkTnhkiT8Yg5HyZZBVHdO85vstFBc=";
  };
}
